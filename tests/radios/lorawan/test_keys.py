"""Key derivations against vectors, the data block's MIC, and that keys are never shown."""

import copy
import pickle
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from radios.lorawan import keys
from radios.lorawan.keys import Key

FROM_2 = "02030405060708090a0b0c0d0e0f10"


def key(text: str) -> Key:
    return Key.from_hex(text)


GEN_APP_KEY = key("03" + FROM_2)


class TestDerivation:
    def test_mc_root_key_of_1_0(self):
        assert keys.mc_root_key_1_0(GEN_APP_KEY) == key("55344e82570eaec8bf03b99962d1f445")

    def test_mc_root_key_of_1_1(self):
        assert keys.mc_root_key_1_1(key("02" + FROM_2)) == key("264fd859583fcc670241ac071cc9f5bb")

    def test_mc_ke_key(self):
        assert keys.mc_ke_key(key("04" + FROM_2)) == key("9083bebf704257883160dbfcde33ad71")

    def test_mc_key_is_encrypted_so_that_the_node_gets_it_by_encryption(self):
        ke_key, mc_key = Key(bytes([1] * 16)), Key(bytes([2] * 16))
        encrypted = keys.encrypt_mc_key(ke_key, mc_key)
        assert encrypted.hex() == "3437d6e231d702419b51b4947271b611"
        node = Cipher(algorithms.AES(ke_key.reveal()), modes.ECB()).encryptor()
        assert node.update(encrypted) == mc_key.reveal()

    def test_group_session_keys(self):
        mc_key = key("01" + FROM_2)
        assert keys.mc_app_s_key(mc_key, 0x01020304) == key("95cb4518ee375606735bbacbdce837fa")
        assert keys.mc_net_s_key(mc_key, 0x01020304) == key("c3f6b388bad6c000b23291ad52c11c7b")

    @pytest.mark.parametrize("mc_addr", [-1, 1 << 32])
    def test_address_that_is_none_is_refused(self, mc_addr):
        with pytest.raises(ValueError, match="mc_addr must be"):
            keys.mc_app_s_key(GEN_APP_KEY, mc_addr)

    def test_data_block_int_key(self):
        assert keys.data_block_int_key(GEN_APP_KEY) == key("89f3f7afc540320e8b59f49ea754c378")


class TestDataBlockMic:
    INT_KEY = keys.data_block_int_key(GEN_APP_KEY)
    DATA = bytes(range(100))

    @pytest.mark.parametrize(
        ("session_cnt", "frag_index", "descriptor", "mic"),
        [(0, 0, "00000000", "201f931f"), (258, 1, "01020304", "c5b8e571")],
    )
    @pytest.mark.parametrize("step", [1, 7, 16, 100, 1000])
    def test_is_the_same_for_any_chunks(self, session_cnt, frag_index, descriptor, mic, step):
        chunks = (self.DATA[at : at + step] for at in range(0, 100, step))
        got = keys.data_block_mic(self.INT_KEY, session_cnt, frag_index, bytes.fromhex(descriptor), 100, chunks)
        assert got.hex() == mic

    @pytest.mark.parametrize("size", [99, 101])
    def test_block_of_another_length_is_refused(self, size):
        with pytest.raises(ValueError, match=f"chunks must be {size} bytes together, not 100"):
            keys.data_block_mic(self.INT_KEY, 0, 0, bytes(4), size, [self.DATA])

    @pytest.mark.parametrize(
        ("session_cnt", "frag_index", "descriptor", "size", "message"),
        [
            (65536, 0, bytes(4), 0, "session_cnt must be"),
            (0, 4, bytes(4), 0, "frag_index must be"),
            (0, 0, bytes(3), 0, "descriptor must be"),
            (0, 0, bytes(4), -1, "size must be"),
        ],
    )
    def test_field_that_does_not_fit_is_refused(self, session_cnt, frag_index, descriptor, size, message):
        with pytest.raises(ValueError, match=message):
            keys.data_block_mic(self.INT_KEY, session_cnt, frag_index, descriptor, size, [])


@dataclass(frozen=True, slots=True)
class Holder:
    key: Key


class TestKey:
    SECRET = "5ec2e7" + "aa" * 13
    KEY = key(SECRET)

    def test_is_never_shown(self):
        shown = [
            repr(self.KEY),
            str(self.KEY),
            f"{self.KEY}",
            f"{self.KEY:>20}",
            repr(Holder(self.KEY)),
        ]
        for text in shown:
            assert "****" in text
            assert "5ec2e7" not in text.lower()
            assert "\\x" not in text

    def test_is_not_shown_by_errors(self):
        for text in ("5ec2e7", "5ec2e7zz" * 4):
            with pytest.raises(ValueError) as caught:
                Key.from_hex(text)
            assert "5ec2e7" not in str(caught.value)
            assert caught.value.__cause__ is None

    @pytest.mark.parametrize("length", [0, 15, 17, 32])
    def test_has_16_bytes(self, length):
        with pytest.raises(ValueError, match=f"a key must be 16 bytes, not {length}"):
            Key(bytes(length))

    def test_cannot_be_changed_or_pickled(self):
        with pytest.raises(AttributeError):
            self.KEY._value = bytes(16)
        with pytest.raises(AttributeError):
            del self.KEY._value
        with pytest.raises(TypeError):
            pickle.dumps(self.KEY)

    def test_is_a_value(self):
        same = key(self.SECRET)
        assert same == self.KEY
        assert hash(same) == hash(self.KEY)
        assert Key(bytes(16)) != self.KEY
        assert self.KEY.reveal() != self.KEY
        assert copy.copy(self.KEY) == copy.deepcopy(Holder(self.KEY)).key == self.KEY

    def test_does_not_follow_a_buffer(self):
        buffer = bytearray(16)
        made = Key(buffer)
        buffer[0] = 1
        assert made.reveal() == bytes(16)
