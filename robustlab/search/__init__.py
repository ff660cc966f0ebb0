"""Many trials on one purse: propose, run, stop the weak ones early, freeze the winner, confirm it with new seeds."""
