"""The engine on NumPy: reference, oracle of the others, and what runs where there is neither a GPU nor a compiler."""
