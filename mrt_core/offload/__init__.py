"""Models on a device with less memory than they need."""
