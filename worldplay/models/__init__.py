"""The networks: transformer, its parts, and the codecs.

Letters of every shape in the package:
b batch   t latent frames   n pixel frames per latent   c channels
h w latent rows, columns   H W pixel rows, columns   p tokens per frame   l sequence tokens (= t*p)   k heads
d channels per head   e model width   a action channels   s sampling steps
"""
