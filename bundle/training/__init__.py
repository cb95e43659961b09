"""What training needs besides MONAI: Ignite handlers, the EMA and the ridge fit."""
