"""The hybrid client: several transports, one cursor, one outbox. See docs/client-protocol.md."""
