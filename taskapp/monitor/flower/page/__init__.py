"""The building blocks of a tab."""
