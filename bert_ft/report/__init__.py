"""What pages are made of: tables, charts, scored sets, templates."""
