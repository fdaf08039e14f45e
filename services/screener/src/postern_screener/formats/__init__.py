"""Old and foreign ways to put files into mail: what carries them, and damage. Pure, bounded, and never raising for anything in the bytes."""
