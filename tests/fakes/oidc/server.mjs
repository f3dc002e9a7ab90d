// A real OpenID Connect provider for tests: npm's oidc-provider with its own login pages.
//
// argv: a JSON object {port, clients, keys, ttl, users}; users maps names to their claims. Each line
// on standard input, {clock, ttl, users}, replaces those; clock is how far its own is ahead. Says "ready" when it serves.
import { createInterface } from 'node:readline';
import Provider from 'oidc-provider';

const settings = JSON.parse(process.argv[2]);
let { users, ttl, clock = 0 } = settings;
const now = Date.now;
Date.now = () => now() + clock * 1000;
const claims = new Set(Object.values(users).flatMap(Object.keys));

const provider = new Provider(`http://127.0.0.1:${settings.port}`, {
  clients: settings.clients,
  jwks: { keys: settings.keys },
  findAccount: async (_, id) => users[id] && {
    accountId: id,
    claims: async () => ({ sub: id, ...users[id] }),
  },
  claims: { openid: ['sub', ...claims] },
  conformIdTokenClaims: false,
  features: { deviceFlow: { enabled: true }, introspection: { enabled: true },
              revocation: { enabled: true } },
  pkce: { required: () => true },
  issueRefreshToken: async () => true,
  ttl: { IdToken: () => ttl, AccessToken: () => ttl, RefreshToken: 86400,
         Grant: 86400, Session: 86400, Interaction: 600, DeviceCode: 600 },
  cookies: { keys: ['only', 'tests'] },
});
provider.listen(settings.port, '127.0.0.1', () => console.log('ready'));
createInterface({ input: process.stdin }).on('line', (line) => { ({ users, ttl, clock } = JSON.parse(line)); });
