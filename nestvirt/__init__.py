"""nestvirt enables nested virtualization and proves it by running code inside the guest."""

__version__ = "0.1.0"
