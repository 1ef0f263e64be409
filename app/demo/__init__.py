"""The demo: the viewer, the service and the chat on this machine, and one turn whose trace is shown."""
