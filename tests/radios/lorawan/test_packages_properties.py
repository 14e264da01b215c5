"""Any command survives the way to bytes and back, in any company; any bytes are answered with a result."""

from hypothesis import given
from hypothesis import strategies as st

from radios.errors import FrameError
from radios.lorawan.packages import clock_sync, firmware_management, fragmentation, multi_package, multicast
from radios.lorawan.packages.codec import PackageVersionAns, PackageVersionReq
from radios.lorawan.packages.firmware_management import UpImageStatus

U8, U16, U24, U32 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 24, 32))
ID = st.integers(0, 3)
BOOL = st.booleans()
N = st.integers(0, 16383)


def exactly(length: int):
    return st.binary(min_size=length, max_size=length)


VERSION_UP = st.builds(PackageVersionAns, U8, U8)
VERSION_DOWN = st.builds(PackageVersionReq)

CLOCK_UP = st.one_of(
    VERSION_UP,
    st.builds(clock_sync.AppTimeReq, U32, st.integers(0, 15), BOOL),
    st.builds(clock_sync.DeviceAppTimePeriodicityAns, BOOL, U32),
)
CLOCK_DOWN = st.one_of(
    VERSION_DOWN,
    st.builds(clock_sync.AppTimeAns, st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, 15)),
    st.builds(clock_sync.DeviceAppTimePeriodicityReq, st.integers(0, 15)),
    st.builds(clock_sync.ForceDeviceResyncReq, st.integers(0, 7)),
)

SETUP_HEAD = (ID, st.integers(0, 15), N, U8, st.integers(0, 7), U8, exactly(4), st.integers(0, 7))
FRAG_UP_V1 = st.one_of(
    VERSION_UP,
    st.builds(fragmentation.FragSessionStatusAns, ID, N, U8, BOOL),
    st.builds(fragmentation.FragSessionSetupAns, ID, BOOL, BOOL, BOOL, BOOL),
    st.builds(fragmentation.FragSessionDeleteAns, ID, BOOL),
)
FRAG_UP_V2 = st.one_of(
    FRAG_UP_V1,
    st.builds(fragmentation.FragSessionStatusAns, ID, N, U8, BOOL, BOOL, BOOL),
    st.builds(fragmentation.FragSessionSetupAns, ID, BOOL, BOOL, BOOL, BOOL, BOOL),
    st.builds(fragmentation.FragDataBlockReceivedReq, ID, BOOL),
)
FRAG_DOWN_BOTH = st.one_of(
    VERSION_DOWN,
    st.builds(fragmentation.FragSessionStatusReq, ID, BOOL),
    st.builds(fragmentation.FragSessionDeleteReq, ID),
)
FRAG_DOWN_V1 = st.one_of(FRAG_DOWN_BOTH, st.builds(fragmentation.FragSessionSetupReq, *SETUP_HEAD))
FRAG_DOWN_V2 = st.one_of(
    FRAG_DOWN_BOTH,
    st.builds(fragmentation.FragSessionSetupReq, *SETUP_HEAD, BOOL, U16, exactly(4)),
    st.builds(fragmentation.FragDataBlockReceivedAns, ID),
)
DATA = st.builds(fragmentation.DataFragment, ID, N, st.binary(max_size=242))

FREQUENCY = st.one_of(
    st.integers(0, 11_999_999).map(lambda step: step * 100),
    st.integers(12_000_000, 0xFFFFFF).map(lambda step: step * 200),
)


@st.composite
def group_status(draw):
    mask = draw(st.integers(0, 15))
    groups = tuple(multicast.McGroup(draw(U8), draw(U32)) for _ in range(mask.bit_count()))
    return multicast.McGroupStatusAns(mask, draw(st.integers(0, 7)), groups)


@st.composite
def session_answer(draw, version: int):
    kind = draw(st.sampled_from((multicast.McClassBSessionAns, multicast.McClassCSessionAns)))
    errors = [draw(BOOL), draw(BOOL), draw(BOOL), draw(BOOL) and version > 1]
    return kind(draw(ID), *errors, time_to_start=None if any(errors) else draw(U24))


def multicast_up(version: int):
    return st.one_of(
        VERSION_UP,
        group_status(),
        st.builds(multicast.McGroupSetupAns, ID, BOOL),
        st.builds(multicast.McGroupDeleteAns, ID, BOOL),
        session_answer(version),
    )


MULTICAST_DOWN = st.one_of(
    VERSION_DOWN,
    st.builds(multicast.McGroupStatusReq, st.integers(0, 15)),
    st.builds(multicast.McGroupSetupReq, ID, U32, exactly(16), U32, U32),
    st.builds(multicast.McGroupDeleteReq, ID),
    st.builds(multicast.McClassCSessionReq, ID, U32, st.integers(0, 15), FREQUENCY, U8),
    st.builds(
        multicast.McClassBSessionReq,
        ID,
        st.integers(0, (1 << 25) - 1).map(lambda period: period * 128),
        st.integers(0, 15),
        st.integers(0, 7),
        FREQUENCY,
        U8,
    ),
)

FIRMWARE_UP = st.one_of(
    VERSION_UP,
    st.builds(firmware_management.DevVersionAns, U32, U32),
    st.builds(firmware_management.DevRebootTimeAns, U32),
    st.builds(firmware_management.DevRebootCountdownAns, U24),
    st.builds(firmware_management.DevUpgradeImageAns, st.sampled_from(list(UpImageStatus)[:3])),
    st.builds(firmware_management.DevUpgradeImageAns, st.just(UpImageStatus.VALID), U32),
    st.builds(firmware_management.DevDeleteImageAns, BOOL, BOOL),
)
FIRMWARE_DOWN = st.one_of(
    VERSION_DOWN,
    st.builds(firmware_management.DevVersionReq),
    st.builds(firmware_management.DevRebootTimeReq, U32),
    st.builds(firmware_management.DevRebootCountdownReq, U24),
    st.builds(firmware_management.DevUpgradeImageReq),
    st.builds(firmware_management.DevDeleteImageReq, U32),
)

# (module, version, up, down)
LISTS = st.sampled_from(
    [
        (clock_sync, 1, CLOCK_UP, CLOCK_DOWN),
        (clock_sync, 2, CLOCK_UP, CLOCK_DOWN),
        (fragmentation, 1, FRAG_UP_V1, FRAG_DOWN_V1),
        (fragmentation, 2, FRAG_UP_V2, FRAG_DOWN_V2),
        (multicast, 1, multicast_up(1), MULTICAST_DOWN),
        (multicast, 2, multicast_up(2), MULTICAST_DOWN),
        (firmware_management, 1, FIRMWARE_UP, FIRMWARE_DOWN),
    ]
)
MODULES = (clock_sync, multicast, fragmentation, firmware_management, multi_package)


@given(LISTS, st.data())
def test_any_list_comes_back(case, data):
    module, version, up, down = case
    sent = data.draw(st.lists(up, min_size=1, max_size=5))
    decoded = module.decode_uplink(module.encode(sent, version), version)
    assert (decoded.commands, decoded.error) == (tuple(sent), None)
    sent = data.draw(st.lists(down, min_size=1, max_size=5))
    decoded = module.decode_downlink(module.encode(sent, version), version)
    assert (decoded.commands, decoded.error) == (tuple(sent), None)


@given(DATA, st.sampled_from((1, 2)))
def test_any_fragment_comes_back(fragment, version):
    decoded = fragmentation.decode_downlink(fragmentation.encode(fragment, version), version)
    assert (decoded.commands, decoded.error) == ((fragment,), None)


@given(LISTS, st.data())
def test_cut_list_keeps_a_prefix_and_names_the_fault(case, data):
    module, version, up, _ = case
    sent = data.draw(st.lists(up, min_size=1, max_size=4))
    frame = module.encode(sent, version)
    decoded = module.decode_uplink(frame[: data.draw(st.integers(0, len(frame) - 1))], version)
    assert decoded.commands == tuple(sent[: len(decoded.commands)])
    assert len(decoded.commands) < len(sent)


@given(st.sampled_from(MODULES), st.data(), st.binary(max_size=60))
def test_any_bytes_have_a_result(module, data, frame):
    version = data.draw(st.sampled_from(module.VERSIONS))
    for decoded in (module.decode_uplink(frame, version), module.decode_downlink(frame, version)):
        assert decoded.error is None or isinstance(decoded.error, FrameError)
        assert decoded.commands or decoded.error


ADDRESSED_UP = st.one_of(
    CLOCK_UP.map(lambda command: multi_package.Addressed(1, command)),
    multicast_up(2).map(lambda command: multi_package.Addressed(2, command)),
    FRAG_UP_V2.map(lambda command: multi_package.Addressed(3, command)),
    FIRMWARE_UP.map(lambda command: multi_package.Addressed(4, command)),
    VERSION_UP.map(lambda command: multi_package.Addressed(0, command)),
)


@given(st.lists(ADDRESSED_UP, min_size=1, max_size=6), st.integers(0, 3))
def test_any_packages_share_a_frame(sent, token):
    versions = {2: 2, 3: 2}
    decoded = multi_package.decode_uplink(multi_package.encode(sent, token=token, versions=versions), versions=versions)
    assert decoded == multi_package.DecodedPack(tuple(sent), token)
