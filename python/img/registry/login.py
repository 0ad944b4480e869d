"""`login`: shows credentials to a registry, before anybody keeps them.

The registry's base is asked for, as docker does it, and its challenge is answered with these credentials and
no others. Nothing is stored here. Source: distribution-spec v1.1, "Determining Support"; the distribution
project's token authentication specification, "Requesting a Token", for `offline_token`.
"""

from __future__ import annotations

from img.errors import NotFound, Unauthorized
from img.oci.reference import Reference
from img.progress import Progress
from img.registry.auth import Credentials, Trade
from img.registry.options import Options
from img.registry.place import Place
from img.registry.wire import Wire
from img.values import dataclass

_BASE = "/v2/"
_WHAT = f"registry at {_BASE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What came of it.

    Attributes:
        credentials: What is to be kept: what was shown, or the identity token that was given for it.
        checked: False where the registry asked for no credentials, and so looked at none.
    """

    credentials: Credentials
    checked: bool


def login(place: Place, credentials: Credentials, options: Options, progress: Progress) -> Login:
    """Asks a registry whether it takes credentials.

    Raises:
        Unauthorized: it does not take them.
        RegistryError: it cannot be reached, or is none.
    """
    trade = Trade(credentials)
    wire = Wire(trade, options, progress)
    # Of a reference, this request needs the registry alone.
    ref = Reference(registry=place.registry, repository=place.namespace or "login", tag="latest")
    try:
        wire.run(
            lambda: wire.exchange("GET", ref, _BASE, what=_WHAT, scopes=frozenset()).close(),
        )
    except Unauthorized as error:
        raise _refused(place, credentials, error) from error
    except NotFound as error:
        error.hint = "is that the registry's name, and its port?"
        raise
    finally:
        wire.close()
    kept = credentials
    if trade.identity_token:
        kept = Credentials(username=credentials.username, identity_token=trade.identity_token)
    return Login(credentials=kept, checked=trade.asked)


def _refused(place: Place, credentials: Credentials, error: Unauthorized) -> Unauthorized:
    what = "the identity token" if credentials.identity_token else "this user name and password"
    says = "".join(error.message.partition("; it says: ")[1:])
    return Unauthorized(
        f"{place.registry} does not take {what}{says}",
        method=error.method,
        url=error.url,
        status=error.status,
        codes=error.codes,
        hint="check them; a registry may want an access token in the place of the password",
    )
