"""What the device does to a batch, in pure JAX: scaling of stored integers, augmentation, spectral targets."""
