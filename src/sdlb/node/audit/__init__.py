"""`sdlb audit`: what is wrong with the security of one node, and the line or command that corrects it."""
