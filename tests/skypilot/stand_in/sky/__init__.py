"""What isoenv sees of SkyPilot: its command line, ports, files and traps, without SkyPilot."""

__version__ = "0.14.1"
