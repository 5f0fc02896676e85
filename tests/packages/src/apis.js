// Shows: graphql-yoga and tRPC: queries, mutations and subscriptions as server-sent events, their errors and their limits.
// > POST /graphql
// + content-type: application/json
// = {"query":"query Q($n: Int!) { square(n: $n) books(first: 2) { title author { name } } }","variables":{"n":7}}
// < 200
// < content-type: application/json; charset=utf-8
// < {"data":{"square":49,"books":[{"title":"Tides","author":{"name":"Ann"}},{"title":"Reefs","author":{"name":"Bo"}}]}}
// > GET /graphql?query=%7B%20square(n%3A3)%20%7D
// + accept: application/json
// < {"data":{"square":9}}
// > POST /graphql
// + content-type: application/json
// + accept: application/graphql-response+json
// = {"query":"mutation { add(title: \\"Atolls\\") { title id } }"}
// < content-type: application/graphql-response+json
// < {"data":{"add":{"title":"Atolls","id":"3"}}}
// > POST /graphql
// + content-type: application/json
// + accept: text/event-stream
// = {"query":"subscription { countdown(from: 3) }"}
// < content-type: text/event-stream
// < event: next\ndata: {"data":{"countdown":3}}
// < event: next\ndata: {"data":{"countdown":1}}
// < event: complete
// > POST /graphql
// + content-type: application/json
// = {"query":"{ nothing }"}
// < Cannot query field \\"nothing\\" on type \\"Query\\".
// > POST /graphql
// + content-type: application/json
// = {"query":"{ open }"}
// < "message":"a message for all"
// < "extensions":{"code":"OPEN"}
// > POST /graphql
// + content-type: application/json
// = {"query":"{ secret }"}
// < "message":"Unexpected error."
// > POST /graphql
// + content-type: application/json
// = {"query":"{ squ
// < 400
// > POST /graphql
// + content-type: multipart/form-data; boundary=b
// = --b\r\ncontent-disposition: form-data; name="operations"\r\n\r\n{"query":"mutation ($f: File!) { size(file: $f) }","variables":{"f":null}}\r\n
// = --b\r\ncontent-disposition: form-data; name="map"\r\n\r\n{"0":["variables.f"]}\r\n
// = --b\r\ncontent-disposition: form-data; name="0"; filename="a.txt"\r\ncontent-type: text/plain\r\n\r\nseven b\r\n--b--\r\n
// < {"data":{"size":"a.txt 7"}}
// > GET /graphql
// + accept: text/html
// < 200
// < Yoga GraphiQL
// > OPTIONS /graphql
// + origin: https://app.example
// + access-control-request-method: POST
// < 204
// > GET /trpc/greet?input=%7B%22name%22%3A%22Ada%22%7D
// < {"result":{"data":"Hello, Ada!"}}
// > GET /trpc/greet,greet?batch=1&input=%7B%220%22%3A%7B%22name%22%3A%22A%22%7D%2C%221%22%3A%7B%22name%22%3A%221%22%7D%7D
// < [{"result":{"data":"Hello, A!"}},{"result":{"data":"Hello, 1!"}}]
// > GET /trpc/greet?input=%7B%22name%22%3A7%7D
// < 400
// < BAD_REQUEST
// > POST /trpc/add
// + content-type: application/json
// = {"text":"swim"}
// < {"result":{"data":{"text":"swim","by":"nobody"}}}
// > POST /trpc/greet
// + content-type: application/json
// = {"name":"x"}
// < 405
// > GET /trpc/none
// < 404
// > GET /trpc/count?input=3
// + accept: text/event-stream
// < content-type: text/event-stream
// < data: 1
// < data: 3
// < event: return
// > GET /local
import { createTRPCClient, httpBatchLink } from "@trpc/client";
import { fetchRequestHandler } from "@trpc/server/adapters/fetch";
import { GraphQLError } from "graphql";
import { createSchema, createYoga } from "graphql-yoga";
import { trpcClientCases } from "./cases.js";
import { reporter } from "./check.js";
import { router } from "./router.js";

const books = [{ id: "1", title: "Tides", author: "Ann" }, { id: "2", title: "Reefs", author: "Bo" }];
const pause = () => new Promise((done) => setTimeout(done, 1));
const yoga = createYoga({
  logging: false,
  schema: createSchema({
    typeDefs: /* GraphQL */ `
      scalar File
      type Author { name: String! }
      type Book { id: ID! title: String! author: Author! }
      type Query { square(n: Int!): Int! books(first: Int): [Book!]! open: String secret: String }
      type Mutation { add(title: String!): Book! size(file: File!): String! }
      type Subscription { countdown(from: Int!): Int! }
    `,
    resolvers: {
      Query: {
        square: (_, { n }) => n * n,
        books: async (_, { first }) => books.slice(0, first),
        open: () => { throw new GraphQLError("a message for all", { extensions: { code: "OPEN" } }); },
        secret: () => { throw new Error("the password is 1234"); },
      },
      Book: { author: ({ author }) => ({ name: author }) },
      Mutation: {
        add: (_, { title }) => ({ id: "3", title, author: "Cy" }),
        size: async (_, { file }) => `${file.name} ${(await file.arrayBuffer()).byteLength}`,
      },
      Subscription: {
        countdown: { async *subscribe(_, { from }) { for (let n = from; n > 0; n--) { await pause(); yield { countdown: n }; } } },
      },
    },
  }),
});

const trpc = (req) => fetchRequestHandler({
  endpoint: "/trpc", req, router, createContext: () => ({ user: req.headers.get("x-user") ?? undefined }),
});

export default {
  fetch(request, env, ctx) {
    const url = new URL(request.url);
    if (url.pathname.startsWith("/trpc")) return trpc(request);
    if (url.pathname !== "/local") return yoga.fetch(request, env, ctx);
    return reporter(async (is) => {
      const fetch = (target, init) => trpc(new Request(target, init));
      await trpcClientCases(is, new URL("/trpc", url).href, { createTRPCClient, httpBatchLink, fetch });
    })(request, env, ctx);
  },
};
