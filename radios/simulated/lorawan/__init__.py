"""Virtual LoRaWAN nodes: application packages, fragment decoder and A/B bootloader of their own.

Nothing here is shared with `radios.lorawan`: an error made twice must not cancel out.
"""
