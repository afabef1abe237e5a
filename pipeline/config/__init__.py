"""What a run is asked to be: its settings, composed and checked, and the id that follows from them."""
