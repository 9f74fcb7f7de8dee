"""Modbus: meters whose registers are described by maps."""
