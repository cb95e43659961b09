"""What training needs besides MONAI: Ignite handlers, averaged weights and the ridge fit."""
