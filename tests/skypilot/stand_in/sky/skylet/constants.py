"""Where SkyPilot 0.14.0 names the variable that it became several servers with."""

LOCAL_PORT = "SKYPILOT_API_SERVER_LOCAL_PORT"
