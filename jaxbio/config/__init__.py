"""Configuration: one table of fields, read and validated once, before a device is touched."""
