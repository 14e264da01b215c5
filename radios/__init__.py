"""Zigbee and LoRaWAN radios: sessions, drivers, simulators. Never imports gatewayd."""
