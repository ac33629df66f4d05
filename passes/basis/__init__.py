"""Changes of basis: exact rewrites that put what a model computes into directions that can go one by one."""
