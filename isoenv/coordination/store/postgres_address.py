"""Where the PostgreSQL database is that several hosts share: how to connect to it and name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoenv.databases.server import reason, require_driver
from isoenv.errors import IsoenvError
from isoenv.paths import STORE_SETTING

if TYPE_CHECKING:
    import psycopg

# The shortest that libpq waits for a connection, in seconds.
SHORTEST = 2
# A server that has vanished without a word is noticed within a minute, also by who waits for ever.
_KEEPALIVE = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}


class Address:
    """The address of a database; what is shown of it has no password."""

    def __init__(self, url: str) -> None:
        """Read the address. Raises IsoenvError where it is none, or psycopg is missing."""
        require_driver()
        self.url = url
        self.label, self._secret = _described(url)

    def connect(self, purpose: str, patience: float, **more: str) -> psycopg.Connection:
        """Return a new connection that commits each statement. Raises psycopg's errors."""
        import psycopg
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        limit = str(max(SHORTEST, int(patience)))
        ours = {**_KEEPALIVE, "connect_timeout": limit}
        given = conninfo_to_dict(self.url)
        ours = {name: value for name, value in ours.items() if name not in given}
        ours |= {"application_name": f"isoenv {purpose}", "client_encoding": "UTF8", **more}
        conninfo = make_conninfo(self.url, **ours)
        return psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)

    def require_direct(self, connection: psycopg.Connection, pid: int) -> None:
        """Raise IsoenvError where ``pid`` of the server is not who this one is connected to.

        Behind a pooler one session's locks and wakes would be another's.
        """
        if pid != connection.info.backend_pid:
            raise IsoenvError(
                f"{STORE_SETTING} is the address of a pooler, {self.label}, behind which "
                "nobody can be woken or hold a lock: give that of the PostgreSQL server itself"
            )

    def failure(self, what: str, error: psycopg.Error) -> IsoenvError:
        """Return what to say of an error of the server's, or of the way to it, in one line."""
        said = self.hide(reason(error))
        return IsoenvError(f"{what} {self.label}: {said}: {_remedy(error)}")

    def hide(self, text: str) -> str:
        """Return a text without the password."""
        return text.replace(self._secret, "…") if self._secret else text


def _described(url: str) -> tuple[str, str]:
    """Return how to name a database to people, and its password."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        # What is wrong with it is not said: that may be a piece of the password.
        raise IsoenvError(
            f"{STORE_SETTING} is no address: `export {STORE_SETTING}=postgresql://USER@HOST/NAME`"
        ) from None
    host = given.get("host") or given.get("hostaddr") or "the local server"
    place = f"{host}:{given['port']}" if given.get("port") else host
    return f"{place}/{given.get('dbname') or ''}", str(given.get("password") or "")


def _remedy(error: psycopg.Error) -> str:
    from psycopg import errors

    if isinstance(error, (errors.QueryCanceled, errors.DeadlockDetected)):
        return "others were before this process, try again"
    away = (None, "57P01", "57P02", "57P03")
    if isinstance(error, errors.OperationalError) and error.sqlstate in away:
        return "once it runs, try again"
    return f"is `{STORE_SETTING}` right?"
