"""What the OCPP side counts: a fixed set of names, so that metrics stay bounded whatever peers send."""

from enum import StrEnum

Counters = dict[str, int]


class Count(StrEnum):
    """The names of the counters; each counts since the start of the server."""

    CONNECTIONS = "connections"
    REFUSED_UNKNOWN = "refused_unknown_identity"
    REFUSED_FULL = "refused_too_many_connections"
    REFUSED_SUBPROTOCOL = "refused_no_common_subprotocol"
    REFUSED_DUPLICATE = "refused_duplicate_identity"
    REPLACED_SILENT = "replaced_silent_session"
    FRAMES_MALFORMED = "frames_malformed"
    FRAMES_UNSOLICITED = "frames_unsolicited"
    FRAMES_REPEATED = "frames_repeated"
    CALLS_RECEIVED = "calls_received"
    CALLS_FAULTED = "calls_faulted"
    CALLS_SENT = "calls_sent"
    CALLS_UNANSWERED = "calls_unanswered"
    CALLS_REFUSED = "calls_refused"
    CALLS_INVALID = "calls_not_schema_valid"
    CLOSED_FLOOD = "closed_flood_of_malformed_frames"
    CLOSED_DEAF = "closed_after_unanswered_calls"
    CLOSED_STALLED = "closed_peer_does_not_read"
    SAMPLES_OLD = "samples_too_old_for_control"
    EVSES_UNKNOWN = "messages_about_unknown_evses"


def new_counters() -> Counters:
    """Return all counters at zero."""
    return {str(name): 0 for name in Count}
