"""Operations on the zones of firewalld."""

from __future__ import annotations

from pycni.change.ops import Op


class TrustSources(Op):
    """These addresses belong to *zone*. Its owner takes them back, like ApplyFirewall."""

    zone: str
    sources: tuple[str, ...]
