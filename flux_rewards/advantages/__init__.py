"""From rewards to advantages, as the trainers compute them."""
