"""pyinfra-solo: a machine that configures itself at boot and takes traffic only when it is right."""

__version__ = "0.1.0"
