"""Sessions survive as records; what is no record is an error, not a crash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.errors import FrameError
from radios.radio import ImageRef, Record, Want, parse_node_id
from radios.zigbee.journal_codec import session_record, session_state
from radios.zigbee.ota_commands import FileId
from radios.zigbee.session_state import OtaImage, SessionState, Stage

U16, U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
STATES = st.builds(
    SessionState,
    node=st.integers(0, 2**64 - 1).map(lambda eui: parse_node_id(f"zigbee:{eui:016x}")),
    transfer=st.text(max_size=20),
    generation=st.integers(0, 1000),
    want=st.sampled_from(Want),
    install_at=st.none() | st.floats(0, 4e9),
    image=st.builds(
        OtaImage, st.builds(ImageRef, st.text(max_size=64), U32, U32), st.builds(FileId, U16, U16, U32), st.none() | U16
    ),
    stage=st.sampled_from([stage for stage in Stage if stage is not Stage.DROPPED]),
    confirmed=U32,
    failures=st.integers(0, 9),
    code=st.text(max_size=10),
    endpoint=st.integers(1, 240),
    running_version=st.none() | U32,
    rebooted=st.booleans(),
)


@given(STATES)
def test_any_state_comes_back(state: SessionState) -> None:
    record = session_record(state)
    assert record.scope == "node"
    assert state.node.endswith(record.key)
    assert session_state(record) == state


@given(st.binary(max_size=60))
def test_other_bytes_are_a_frame_error(value: bytes) -> None:
    with pytest.raises(FrameError):
        session_state(Record("node", "00124b0000000001", 1, value))


@pytest.mark.parametrize("value", [b"[]", b"{}", b'{"transfer":1}', b"null"])
def test_json_of_another_form_is_a_frame_error(value: bytes) -> None:
    with pytest.raises(FrameError):
        session_state(Record("node", "00124b0000000001", 1, value))


def test_a_newer_encoding_is_refused() -> None:
    with pytest.raises(FrameError, match="version 2"):
        session_state(Record("node", "00124b0000000001", 2, b"{}"))
