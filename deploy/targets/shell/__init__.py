"""Devices with a shell: what adb and ssh have in common."""
