"""A simulated Zigbee site: nodes with an OTA client and an A/B bootloader, their mesh, and an EZSP dongle on TCP.

Speaks the real protocols with its own decoders; nothing here is imported by production code.
"""
