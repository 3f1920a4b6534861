"""How synthetic and real rain differ: features, statistics, the study of two sets of images, and its figures."""
