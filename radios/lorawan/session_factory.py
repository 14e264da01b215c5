"""Makes cohorts and their sessions: keys, pacing, the block. SHELL, because it draws random numbers and reads images."""

import secrets
from collections.abc import Callable, Sequence

from radios.lorawan.air import MulticastAir, Turn
from radios.lorawan.air_book import AirBook
from radios.lorawan.cohort import BlockSource, Cohort, periodicity_for
from radios.lorawan.fec import Encoder
from radios.lorawan.fuota_session import FuotaSession
from radios.lorawan.keys import KEY_BYTES, Key
from radios.lorawan.outgoing import Remember
from radios.lorawan.packages.fragmentation import FRAGMENT_OVERHEAD, N_MAX
from radios.lorawan.placement import Place, place_fragment
from radios.lorawan.session_node import SessionNode
from radios.lorawan.settings import LorawanSettings
from radios.lorawan.unicast_air import UnicastAir, rx1_frequency_hz
from radios.radio import TransferOrder

_CODED_AT_ONCE = 16


class SessionFactory:
    """`read(digest, offset, length)` raises ImageError. `book` is kept by the caller; `bus_hears`: see `UnicastAir`."""

    def __init__(
        self,
        settings: LorawanSettings,
        turn: Turn,
        book: AirBook,
        read: Callable[[str, int, int], bytes],
        bus_hears: Callable[[], bool],
    ) -> None:
        plan = settings.plan
        self.unicast_air = UnicastAir(
            plan,
            rx2=book.of(plan.rx2_frequency_hz),
            rx1=book.of(rx1_frequency_hz(plan)),
            reserve=settings.air.reserve,
            told_elsewhere=bus_hears,
        )
        self._settings = settings
        self._turn = turn
        self._book = book
        self._read = read

    def frag_size(self, place: Place, image_bytes: int) -> int:
        """Of a cohort there; Unsupported when the image cannot be sent so."""
        return place_fragment(self._settings.plan, place, image_bytes)

    def new_cohort(self, order: TransferOrder, place: Place, gateways: Sequence[str]) -> tuple[Cohort, Key]:
        """`gateways`: all that there are."""
        mc_addr, mc_key = new_group()
        cohort = Cohort(
            cohort=secrets.token_hex(4),
            transfer=order.transfer,
            digest=order.image.digest,
            size=order.image.size,
            version=order.image.version,
            frag_size=self.frag_size(place, order.image.size),
            frag_most=place.frag_most,
            frag_version=place.frag_version,
            region=self._settings.region,
            data_rate=place.data_rate,
            frequency_hz=self._settings.frequency_hz,
            gateways=place.gateways or tuple(gateways),
            mc_addr=mc_addr,
            port=place.port,
            unicast=place.unicast,
            ping_periodicity=self._periodicity(order, place) if place.class_b else None,
        )
        return cohort, mc_key

    def pace(self, share: float, gateways: Sequence[str], data_rate: int) -> MulticastAir:
        plan, settings = self._settings.plan, self._settings
        self._book.know(gateways)
        opened = self._book.of(settings.frequency_hz)
        return MulticastAir(
            {name: opened[name] for name in gateways},
            plan.downlink(data_rate).modulation,
            self._turn,
            share=share,
            gateway_gap_s=settings.class_c_margin_s,
            limits=settings.air,
            least_spacing_s=settings.scheduler_s,
            minute_of_day=settings.minute_of_day,
        )

    def _periodicity(self, order: TransferOrder, place: Place) -> int:
        payload_len = FRAGMENT_OVERHEAD + self.frag_size(place, order.image.size)
        return periodicity_for(self.pace(order.air_share, place.gateways, place.data_rate).spacing_s(payload_len))

    def session(
        self,
        cohort: Cohort,
        mc_key: Key,
        nodes: Sequence[SessionNode] | None,
        order: TransferOrder | None,
        remember: Remember,
    ) -> tuple[FuotaSession, MulticastAir]:
        """`nodes` after a restart; else none are in it yet."""
        pace = self.pace(order.air_share if order else 1.0, cohort.gateways, cohort.data_rate)
        session = FuotaSession(
            cohort,
            mc_key,
            self._block_source(cohort),
            pace,
            self._turn,
            self._settings.session,
            new_group,
            port=cohort.port,
            unicast=self.unicast_air,
            nodes=nodes,
            expires=order.expires.timestamp() if order else None,
            remember=remember,
        )
        return session, pace

    def _block_source(self, cohort: Cohort) -> BlockSource:
        def read(offset: int, length: int) -> bytes:
            return self._read(cohort.digest, offset, length)

        encoder = Encoder(read, cohort.size, cohort.frag_size, cohort.frag_version)
        coded: dict[int, bytes] = {}

        def fragment(n: int) -> bytes:
            if n <= cohort.nb_frag:
                return encoder.fragment(n)
            if n not in coded:  # many at once cost little more than one
                batch = range(n, min(n + _CODED_AT_ONCE, N_MAX + 1))
                coded.clear()
                coded.update(zip(batch, encoder.fragments(batch), strict=True))
            return coded[n]

        return BlockSource(read, fragment, cohort.size)


def new_group() -> tuple[int, Key]:
    """McAddr and McKey. Addresses are drawn at random: groups are few and their keys differ."""
    return secrets.randbits(32), Key(secrets.token_bytes(KEY_BYTES))
