"""Decisions of the playbooks, called by filter plugins on the controller.

Part of neither the wheel nor the images.
"""
