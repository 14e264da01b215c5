"""Vectors of the protocol file (TS004, TS005) and of FIPS/RFC for the primitives below them."""

from radios.simulated.lorawan import crypto

GEN_APP_KEY = bytes([3, 2, 3, *range(4, 17)])
MC_KEY = bytes(range(1, 17))


def test_cmac_of_rfc_4493():
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    assert crypto.cmac4(key, b"").hex() == "bb1d6929"
    assert crypto.cmac4(key, bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")).hex() == "070a16b4"


def test_group_keys():
    assert crypto.mc_app_s_key(MC_KEY, 0x01020304).hex() == "95cb4518ee375606735bbacbdce837fa"
    assert crypto.mc_nwk_s_key(MC_KEY, 0x01020304).hex() == "c3f6b388bad6c000b23291ad52c11c7b"


def test_root_and_key_encryption_keys():
    assert crypto.mc_root_key(gen_app_key=GEN_APP_KEY).hex() == "55344e82570eaec8bf03b99962d1f445"
    app_key = bytes([2, *GEN_APP_KEY[1:]])
    assert crypto.mc_root_key(app_key=app_key).hex() == "264fd859583fcc670241ac071cc9f5bb"
    root = bytes([4, *GEN_APP_KEY[1:]])
    assert crypto.mc_ke_key(root).hex() == "9083bebf704257883160dbfcde33ad71"


def test_a_node_gets_the_group_key_back():
    encrypted = bytes.fromhex("3437d6e231d702419b51b4947271b611")
    assert crypto.mc_key_from_encrypted(b"\x01" * 16, encrypted) == b"\x02" * 16


def test_data_block_integrity():
    int_key = crypto.data_block_int_key(GEN_APP_KEY)
    assert int_key.hex() == "89f3f7afc540320e8b59f49ea754c378"
    block = bytes(range(100))
    assert crypto.data_block_mic(int_key, 0, 0, bytes(4), block).hex() == "201f931f"
    assert crypto.data_block_mic(int_key, 258, 1, bytes([1, 2, 3, 4]), block).hex() == "c5b8e571"


def test_payload_encryption_is_its_own_inverse_and_depends_on_the_counter():
    payload = bytes(range(50))
    sealed = crypto.crypt_downlink_payload(MC_KEY, 0x01020304, 7, payload)
    assert crypto.crypt_downlink_payload(MC_KEY, 0x01020304, 7, sealed) == payload
    assert crypto.crypt_downlink_payload(MC_KEY, 0x01020304, 8, sealed) != payload
    assert crypto.crypt_downlink_payload(MC_KEY, 0x01020304, 7, b"") == b""
