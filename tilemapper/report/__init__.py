"""What is made to be looked at or to test with: pictures, figures, the synthetic city."""
