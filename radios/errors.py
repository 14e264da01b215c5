"""Errors of the radios, split by who has to act.

A codec or session never lets another exception out for what arrives from the air: bytes that make no sense are
`FrameError` and are answered or dropped; everything else is either a link that may come back or our own mistake.
"""


class RadioError(Exception):
    """Base of everything that the radios raise on purpose."""


class FrameError(RadioError):
    """The bytes are not a frame of the protocol: the sender's fault, retrying the same bytes is useless."""


class LinkError(RadioError):
    """The dongle, network server or bus did not do its part now; the same request may succeed later."""


class Unsupported(RadioError):
    """The node or network can never do what is asked (wrong class, payload too large): needs a person or another plan."""


class ContractError(RadioError):
    """The caller broke the contract of `radios.radio`: a bug on our side."""


class ImageError(RadioError):
    """The image cannot be read from the store, or is not a file that this radio can send."""
