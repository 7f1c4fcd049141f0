/* An mbedTLS client (2.28 or 3) with a device's certificate: connects to localhost twice, the second time with the session of the
 * first, and each time until CONNACK. Prints version, cipher suite and the bytes of both handshakes, each both ways together.
 *
 *     cc mbedtls_check.c -o mbedtls_check -lmbedtls -lmbedx509 -lmbedcrypto
 *     ./mbedtls_check PORT CA CERTIFICATE KEY
 */
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t bytes;

static void check(int result, const char *what) {
    if (result < 0) {
        char text[256];
        mbedtls_strerror(result, text, sizeof text);
        fprintf(stderr, "%s: %s\n", what, text);
        exit(1);
    }
}

static int counted_send(void *net, const unsigned char *data, size_t length) {
    int count = mbedtls_net_send(net, data, length);
    bytes += count > 0 ? (size_t)count : 0;
    return count;
}

static int counted_receive(void *net, unsigned char *data, size_t length) {
    int count = mbedtls_net_recv(net, data, length);
    bytes += count > 0 ? (size_t)count : 0;
    return count;
}

static size_t visit(mbedtls_ssl_config *config, const char *port, mbedtls_ssl_session *session, int has_session) {
    static const unsigned char connect[] = "\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00";
    static const unsigned char accepted[] = {0x20, 2, 0, 0};
    unsigned char answer[4];
    size_t have = 0, handshake;
    mbedtls_net_context net;
    mbedtls_ssl_context ssl;
    bytes = 0;
    mbedtls_net_init(&net);
    mbedtls_ssl_init(&ssl);
    check(mbedtls_net_connect(&net, "127.0.0.1", port, MBEDTLS_NET_PROTO_TCP), "connect");
    check(mbedtls_ssl_setup(&ssl, config), "setup");
    check(mbedtls_ssl_set_hostname(&ssl, "localhost"), "name");
    mbedtls_ssl_set_bio(&ssl, &net, counted_send, counted_receive, NULL);
    if (has_session) {
        check(mbedtls_ssl_set_session(&ssl, session), "set session");
    }
    check(mbedtls_ssl_handshake(&ssl), "handshake");
    handshake = bytes;
    check(mbedtls_ssl_write(&ssl, connect, sizeof connect - 1), "CONNECT");
    while (have < sizeof answer) {
        int count = mbedtls_ssl_read(&ssl, answer + have, sizeof answer - have);
        check(count, "CONNACK");
        if (count == 0) {
            fprintf(stderr, "no CONNACK\n");
            exit(1);
        }
        have += (size_t)count;
    }
    if (memcmp(answer, accepted, sizeof accepted) != 0) {
        fprintf(stderr, "refused: %d\n", answer[3]);
        exit(1);
    }
    if (!has_session) {
        printf("%s %s\n", mbedtls_ssl_get_version(&ssl), mbedtls_ssl_get_ciphersuite(&ssl));
        check(mbedtls_ssl_get_session(&ssl, session), "session");
    }
    mbedtls_ssl_close_notify(&ssl);
    mbedtls_ssl_free(&ssl);
    mbedtls_net_free(&net);
    return handshake;
}

int main(int count, char **arguments) {
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context random;
    mbedtls_x509_crt authority, own;
    mbedtls_pk_context key;
    mbedtls_ssl_config config;
    mbedtls_ssl_session session;
    size_t full, resumed;
    if (count != 5) {
        fprintf(stderr, "usage: mbedtls_check PORT CA CERTIFICATE KEY\n");
        return 2;
    }
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&random);
    mbedtls_x509_crt_init(&authority);
    mbedtls_x509_crt_init(&own);
    mbedtls_pk_init(&key);
    mbedtls_ssl_config_init(&config);
    mbedtls_ssl_session_init(&session);
    check(mbedtls_ctr_drbg_seed(&random, mbedtls_entropy_func, &entropy, NULL, 0), "random");
    check(mbedtls_x509_crt_parse_file(&authority, arguments[2]), arguments[2]);
    check(mbedtls_x509_crt_parse_file(&own, arguments[3]), arguments[3]);
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    check(mbedtls_pk_parse_keyfile(&key, arguments[4], NULL, mbedtls_ctr_drbg_random, &random), arguments[4]);
#else
    check(mbedtls_pk_parse_keyfile(&key, arguments[4], NULL), arguments[4]);
#endif
    check(mbedtls_ssl_config_defaults(&config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT), "config");
    mbedtls_ssl_conf_authmode(&config, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(&config, &authority, NULL);
    mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &random);
    check(mbedtls_ssl_conf_own_cert(&config, &own, &key), "own certificate");
    full = visit(&config, arguments[1], &session, 0);
    resumed = visit(&config, arguments[1], &session, 1);
    printf("full=%zu resumed=%zu\n", full, resumed);
    return 0;
}
