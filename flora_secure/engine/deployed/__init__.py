"""What a federation between organisations is made of, whatever carries its bytes."""
