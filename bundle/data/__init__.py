"""What a data set is: slides, splits, measured units, the gene panel, and the samples made of them."""
