"""What the records of this project are made of; a record of yours may use it or nothing of it."""
