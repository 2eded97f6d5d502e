"""Programs whose numbers depend on the number of devices, or are wrong on one as well."""
