"""Zigbee nodes, updated through the OTA Upgrade cluster (ZCL8 chapter 11, cluster 0x0019)."""
