"""The engine that needs no framework: asyncio over mutual TLS 1.3, one connection a client."""
