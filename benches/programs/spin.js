// A neighbour from hell.
export default { fetch() { for (;;); } };
