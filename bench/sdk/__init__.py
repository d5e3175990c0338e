"""The TypeScript client: its memory over a million events, and how soon it goes on after a fault."""
