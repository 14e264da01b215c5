"""LoRaWAN cryptography as a node does it (1.0.x link layer, TS004 and TS005 keys)."""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

_BLOCK_BYTES = 16


def aes_encrypt(key: bytes, data: bytes) -> bytes:
    """AES-128 of each 16-byte block of `data` on its own."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - LoRaWAN is built from single blocks
    return encryptor.update(data) + encryptor.finalize()


def cmac4(key: bytes, data: bytes) -> bytes:
    """First 4 bytes of AES-CMAC: every MIC in LoRaWAN."""
    mac = CMAC(algorithms.AES(key))
    mac.update(data)
    return mac.finalize()[:4]


def mc_root_key(*, gen_app_key: bytes | None = None, app_key: bytes | None = None) -> bytes:
    """McRootKey from GenAppKey (LoRaWAN 1.0.x) or from AppKey (1.1); exactly one is given (TS005)."""
    if (gen_app_key is None) == (app_key is None):
        raise ValueError("McRootKey is derived from either GenAppKey or AppKey")
    if gen_app_key is not None:
        return aes_encrypt(gen_app_key, bytes(_BLOCK_BYTES))
    assert app_key is not None  # noqa: S101 - for the type checker, excluded above
    return aes_encrypt(app_key, b"\x20" + bytes(15))


def mc_ke_key(root_key: bytes) -> bytes:
    return aes_encrypt(root_key, bytes(_BLOCK_BYTES))


def mc_key_from_encrypted(ke_key: bytes, encrypted: bytes) -> bytes:
    """The node *encrypts* what the server has *decrypted*, so that it needs no AES decryption (TS005)."""
    return aes_encrypt(ke_key, encrypted)


def mc_app_s_key(mc_key: bytes, mc_addr: int) -> bytes:
    return aes_encrypt(mc_key, b"\x01" + mc_addr.to_bytes(4, "little") + bytes(11))


def mc_nwk_s_key(mc_key: bytes, mc_addr: int) -> bytes:
    return aes_encrypt(mc_key, b"\x02" + mc_addr.to_bytes(4, "little") + bytes(11))


def data_block_int_key(key: bytes) -> bytes:
    """Key of the data block MIC from GenAppKey (1.0.x) or AppKey (1.1) (TS004 v2)."""
    return aes_encrypt(key, b"\x30" + bytes(15))


def data_block_mic(int_key: bytes, session_cnt: int, frag_index: int, descriptor: bytes, block: bytes) -> bytes:
    """MIC of a data block without its padding (TS004 v2)."""
    b0 = b"\x49" + session_cnt.to_bytes(2, "little") + bytes([frag_index]) + descriptor + bytes(4)
    return cmac4(int_key, b0 + len(block).to_bytes(4, "little") + block)


def crypt_downlink_payload(key: bytes, dev_addr: int, f_cnt: int, payload: bytes) -> bytes:
    """FRMPayload of a downlink, encrypted or decrypted (the same operation)."""
    head = b"\x01" + bytes(4) + b"\x01" + dev_addr.to_bytes(4, "little") + f_cnt.to_bytes(4, "little") + b"\x00"
    blocks = -(-len(payload) // _BLOCK_BYTES)
    stream = aes_encrypt(key, b"".join(head + bytes([i + 1]) for i in range(blocks)))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(payload), "big")


def downlink_mic(key: bytes, dev_addr: int, f_cnt: int, message: bytes) -> bytes:
    """MIC of a LoRaWAN 1.0 data downlink; `message` is MHDR to the end of FRMPayload."""
    head = b"\x49" + bytes(4) + b"\x01" + dev_addr.to_bytes(4, "little") + f_cnt.to_bytes(4, "little") + b"\x00"
    return cmac4(key, head + bytes([len(message)]) + message)
