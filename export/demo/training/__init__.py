"""How the demo checkpoint was trained and is judged; not part of an installed package."""
